"""podcluster: a page-exact simulator of clusters of Xen hosts whose guests boot by populate-on-demand."""

__version__ = "0.1.0"
