"""A dataset built in tasks: sources are read, and texts tokenised, shard by shard.

What a shard gives does not depend on the others. What does (which documents are duplicates, held
out, and where each stands) the joining process decides from digests and sizes, so the dataset is
the same however many processes there are and wherever the shards are cut.
"""
