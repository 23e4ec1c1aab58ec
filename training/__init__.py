"""Making versions: the rows, the recipe, the measurement and the child process that runs them; no Gradio here."""
