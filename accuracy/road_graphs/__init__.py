"""Roads as graphs: traced from masks, compared by APLS and by broken and bridged links."""
