"""The page: the modules that use Gradio. Besides, only plugins and a page of `bench` import it."""
