"""Search by meaning: passages and queries become vectors, and faiss finds the nearest.

encoders    which model, its prefixes and its pooling; text -> vectors
runtimes    what runs the model: PyTorch or ONNX Runtime
vectors     the passages' vectors on disk, block by block
layouts     the kinds of faiss index: what each costs, which one to take, how it is built and tuned
backend     the ``dense`` kind of index
"""
