"""The build side: from a product's repository to one signed package for each release."""

__version__ = "0.1.0"
