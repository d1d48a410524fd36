"""What is done only on CPUs, where it is measured to pay."""


def cpu_environment() -> dict[str, str]:
    """Variables that a launcher sets before Python starts, for training on Linux with glibc.

    XLA's CPU backend takes its buffers from malloc and gives them back every step: with huge pages, and without returning
    memory to the kernel between steps, page faults all but vanish. Needs transparent huge pages at `madvise` or `always`.
    """
    return {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "268435456",
        "JAX_PLATFORMS": "cpu",
    }
