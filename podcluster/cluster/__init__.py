"""The cluster: epochs, the scheduler's meeting with the hosts, and where the hosts are computed (this process or Ray
actors).
"""
