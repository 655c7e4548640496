"""The world of ranks: how they start, meet, report progress and end; knows no analysis."""
