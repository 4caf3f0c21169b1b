"""``k8sflow ui``: the runs of a store in the browser; a server that only reads, on this machine only.

``app.py`` has the routes, ``guard.py`` controls access, ``library.py`` lists runs, and ``progress.py`` follows one of
them.
"""
