"""A price by list prices, per month: those of docs/cost.md, in US dollars, us-east-1."""

from __future__ import annotations

from stacks.config import EnvironmentConfig, instance_memory_gib

_HOURS = 730
# Of Fargate on ARM: an hour of a vCPU, and of a GB.
_FARGATE_VCPU, _FARGATE_GB = 0.03238, 0.00356
_X86, _SPOT = 1.25, 0.3
# An hour of a GiB of memory, by the first letters of the class; the price follows the memory.
_DATABASE_GIB = {"t": 0.0160, "m": 0.0210, "r": 0.0150}
_AURORA_GIB, _ACU = 0.0173, 0.12
_IO_OPTIMIZED = 1.3
_STORAGE_GIB = 0.115
_LOAD_BALANCER = 17.0
_NAT = {"instance": 7.0, "gateway": 36.5}
_KEYS, _LOGS = 3.0, 5.0


def monthly(environment: EnvironmentConfig) -> dict[str, float]:
    """Dollars a month for each part that costs without being used."""
    network, server = environment.network, environment.server
    task = server.cpu / 1024 * _FARGATE_VCPU + server.memory_mib / 1024 * _FARGATE_GB
    factor = (_X86 if server.architecture == "x86_64" else 1) * (_SPOT if server.spot else 1)
    parts = {
        "tasks": server.min_tasks * task * _HOURS * factor,
        "database": _database(environment),
        "load balancer": _LOAD_BALANCER,
        "keys, logs": _KEYS + _LOGS,
    }
    if network.existing is None:
        parts["NAT"] = network.nat_count * _NAT[network.nat]
    return parts


def _database(environment: EnvironmentConfig) -> float:
    database = environment.database
    if database.engine == "aurora":
        instances = 1 + database.readers
        factor = _IO_OPTIMIZED if database.storage_type == "aurora-iopt1" else 1
        if database.serverless:
            return instances * database.min_acu * _ACU * _HOURS * factor
        return instances * instance_memory_gib(database.instance_class) * _AURORA_GIB * _HOURS * factor
    copies = 2 if database.multi_az else 1
    hour = instance_memory_gib(database.instance_class) * _DATABASE_GIB[database.instance_class[0]]
    return copies * (hour * _HOURS + database.storage_gib * _STORAGE_GIB)
