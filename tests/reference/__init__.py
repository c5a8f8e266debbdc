"""The slow, plain, obviously-right model of a populate-on-demand host, written from the rules alone.

It exists to be compared with: the kernels must leave the state that this model leaves. Clarity before speed everywhere.
"""
