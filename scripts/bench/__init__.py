"""`python -m scripts.bench`: the product measured against a bound. See docs/performance.md."""
