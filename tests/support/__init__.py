"""What tests share: fakes, recordings, models and folders made for them."""
