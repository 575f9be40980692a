"""The audit log: an RFC 6962 Merkle log per party, its C2SP text formats, its witnesses and where it is kept."""
