"""Roads as graphs: traced from masks, compared by APLS and by links that are broken or bridged."""
