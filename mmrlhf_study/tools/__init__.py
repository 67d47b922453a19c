"""What stands beside the main road: plans, harnesses, people's tools, exports."""
