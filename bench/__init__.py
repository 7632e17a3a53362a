"""What each published figure was measured with."""
