"""The page: everything that Gradio draws. Only plugins, and in `bench` a page to compare with, import Gradio too."""
