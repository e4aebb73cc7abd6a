"""Pages, and parts of pages: what is shown, with Streamlit. What is read and drawn stands in ``dashboard``."""
