"""What members are told: in the app, by e-mail, by web push."""
