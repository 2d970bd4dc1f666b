"""What commands and tasks print for people, subject by subject."""
