"""Pictures of a flow's graph: lines of text, SVG, Mermaid, DOT; made without any other program."""
