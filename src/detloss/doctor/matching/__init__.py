"""Which known loss it is, in which convention."""
