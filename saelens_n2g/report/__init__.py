"""One report of all analyses of a model: chapters read off what the analyses wrote, a summary, pages."""
