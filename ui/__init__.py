"""The page: everything that Gradio draws. The only package, with the plugins, that imports Gradio."""
