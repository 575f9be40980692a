"""What programs that stay show the people who look after them: logs, metrics, health. No data, no secrets."""
