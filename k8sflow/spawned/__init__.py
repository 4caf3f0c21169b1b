"""The folder on ``sys.path`` where new interpreters find ``metaflow``, after multiprocessing gave them this path."""
