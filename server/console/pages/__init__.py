"""The pages, a router each: all of a page's addresses begin with its path, and one dependency lets people in."""
