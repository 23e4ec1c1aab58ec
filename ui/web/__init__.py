"""The web server: access control, sign-in, middleware, and the private interfaces of Gradio."""
