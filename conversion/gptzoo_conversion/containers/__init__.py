"""One small file for each container of tensors. None of them knows anything of GPT.

Each offers

    read_...(path) -> TensorFile        checks all that the file claims, and reads no tensor
    write_...(path, infos, read, metadata)   writes new files, one tensor at a time, the same bytes for the same input

and raises `CheckpointError`, naming the file and the tensor, for whatever is wrong.
"""
