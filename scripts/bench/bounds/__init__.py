"""What the product is measured against: the least that does the same work. Nothing of `app` runs in here."""
