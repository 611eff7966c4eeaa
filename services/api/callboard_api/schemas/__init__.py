"""What requests may say: bodies, fields and queries, read strictly; and the JSON Schemas of resources."""
