"""What lies in an adapter's folder: published versions, their manifest, and ways in and out."""
