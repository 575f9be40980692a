"""What several tests share: keys that do not change, and rounds that can be scripted."""
