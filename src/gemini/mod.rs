//! A Gemini client as a tower service.
