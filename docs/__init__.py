"""What turns the documentation into other forms."""
