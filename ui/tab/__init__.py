"""The tab of a plugin: its components, answers, comparison and corrections."""
