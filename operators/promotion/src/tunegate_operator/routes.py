"""What HTTPRoutes, Services and Gateways say of where the traffic goes, and at which address. Pure functions.

A gateway is believed for the route as it stands now, and only where the route names it: entries of gateways that were
named before stay in its status for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunegate.api.policy import ClusterPolicy
from tunegate.kube.kinds import Object
from tunegate_operator.types import MANAGER

# Traefik's listeners name the ports of its pods, which its Service maps to others.
_MAPS_PORTS = "traefik.io/gateway-controller"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EVERY_HOST = ""


@dataclass(frozen=True)
class RouteState:
    """Where the traffic goes.

    weights: percent by digest; None while the gateway has not accepted what the route says now, see `problem`.
    asked: percent by digest as the route says it, accepted or not.
    is_waiting: no gateway has refused it; it has not said anything about the route as it is.
    """

    weights: Mapping[str, int] | None
    problem: str = ""
    asked: Mapping[str, int] = field(default_factory=dict)
    is_waiting: bool = False


def route_state(route: Object | None, digests: Mapping[str, str]) -> RouteState:
    """The weights of an HTTPRoute. `digests` are the digests of versions by the name of their server.

    A route that is not there sends nothing anywhere. One that its gateway has not accepted as it stands now, or whose
    backends it can't find, may send anything anywhere.
    """
    if route is None:
        return RouteState({})
    weights: dict[str, int] = {}
    # The first rule is for answers; an operator of before wrote one for everything.
    for ref in route["spec"]["rules"][0].get("backendRefs", ()):
        server = str(ref.get("name", "")).removesuffix("-predictor")
        weights[digests.get(server, server)] = int(ref.get("weight", 1))
    # Weights are shares; ours add up to 100, and those a person wrote may not.
    total = sum(weights.values()) or 100
    asked = {digest: round(100 * weight / total) for digest, weight in weights.items()}
    for ref in route["spec"].get("parentRefs", ()):
        if refusal := _refusal(route, ref):
            problem, is_waiting = refusal
            return RouteState(None, problem, asked, is_waiting)
    return RouteState(asked, asked=asked)


def switch_state(service: Object | None, digests: Mapping[str, str]) -> RouteState:
    """The weights of a Service that switches: all of the traffic for the server it selects."""
    if service is None:
        return RouteState({})
    name = service["spec"].get("selector", {}).get("serving.kserve.io/inferenceservice", "")
    weights = {digests.get(name, name): 100}
    return RouteState(weights, asked=weights)


def written_at(obj: Object) -> datetime:
    """When we last wrote the object, as the API server remembers it."""
    metadata = obj["metadata"]
    times = [
        entry["time"]
        for entry in metadata.get("managedFields", ())
        if entry.get("manager") == MANAGER and not entry.get("subresource") and "time" in entry
    ]
    return max(map(datetime.fromisoformat, (metadata["creationTimestamp"], *times)))


def overlap(
    policy: Object, asking: Callable[[str], Iterable[Object]], route_of: Callable[[Object], Object | None]
) -> tuple[str, bool]:
    """Which other policy asks the same gateway for the same requests, as a sentence, and whether it is that which gets
    them; empty when none does. `asking` finds the policies that ask for one of `requests_of`, `route_of` the HTTPRoute
    of a policy.

    Of two routes that match a request equally well, the older one gets it (Gateway API). A host name wins over a
    pattern such as *.example.com, and a longer prefix over a shorter one: those share the requests as they say.
    """
    uid = policy["metadata"]["uid"]
    others = [
        (_age(other, route_of(other)), requests)
        for requests in requests_of(policy)
        for other in asking(requests)
        if other["metadata"]["uid"] != uid
    ]
    if not others:
        return "", False
    (created, namespace, name), requests = min(others)  # the one that gets them where there are several
    _, _, host, prefix = requests.split("/", 3)
    said = f"{host or 'every host'} below /{prefix}"
    loses = (created, namespace, name) < _age(policy, route_of(policy))
    gets = "it gets them" if loses else "this one gets them, and that one none"
    message = (
        f"PromotionPolicy {name} in namespace {namespace} asks the same gateway for the same requests ({said}), and "
        f"{gets}; give one of them other traffic.hostnames or traffic.pathPrefix"
    )
    return message, loses


def requests_of(policy: Object) -> list[str]:
    """What a policy asks gateways for, as `namespace/gateway/host/prefix`, in order; nothing without a gateway."""
    traffic = policy.get("spec", {}).get("traffic", {})
    gateway = traffic.get("gateway")
    if not gateway:
        return []
    namespace = gateway.get("namespace") or policy["metadata"]["namespace"]
    prefix = traffic.get("pathPrefix", "/").rstrip("/")
    hosts = sorted(traffic.get("hostnames") or (_EVERY_HOST,))
    return [f"{namespace}/{gateway['name']}/{host}{prefix or '/'}" for host in hosts]


def address(policy: ClusterPolicy, route: Object | None, gateway: Object | None) -> str:
    """The URL that the model answers at from outside, by the gateway's listeners; empty where no host name is known.

    Without a Gateway that can be read, plain HTTP at the usual port is what is left to say.
    """
    traffic = policy.traffic
    listeners = [
        listener
        for listener in (gateway or {}).get("spec", {}).get("listeners", ())
        if listener.get("protocol") in ("HTTP", "HTTPS")
        and traffic.gateway
        and traffic.gateway.section_name in ("", listener.get("name"))
    ]
    names = traffic.hostnames or [listener.get("hostname", "") for listener in listeners]
    host = next((name for name in names if name and not name.startswith("*")), "")
    if not host:
        return ""
    fitting = [
        listener
        for listener in listeners
        if (pattern := listener.get("hostname") or host) == host
        or (pattern.startswith("*.") and host.endswith(pattern[1:]))
    ]
    listener: Object = max(fitting, key=lambda listener: bool(listener["protocol"] == "HTTPS"), default={})
    scheme = listener.get("protocol", "HTTP").lower()
    parents = (route or {}).get("status", {}).get("parents", ())
    is_mapped = any(parent.get("controllerName") == _MAPS_PORTS for parent in parents)
    port = listener.get("port", _DEFAULT_PORTS[scheme])
    shown = "" if is_mapped or port == _DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{host}{shown}{traffic.path_prefix}"


def _refusal(route: Object, ref: Object) -> tuple[str, bool] | None:
    """Why the gateway of this parentRef does not do what the route says, and whether it has just not answered; or None.

    A Gateway that was given to another controller has two entries, of which one is out of date.
    """
    metadata = route["metadata"]
    name, generation, gateway = metadata["name"], metadata.get("generation", 0), ref.get("name", "")
    parents = route.get("status", {}).get("parents", ())
    entries = [parent for parent in parents if _key(parent.get("parentRef", {}), route) == _key(ref, route)]
    refusals = []
    for entry in entries:
        conditions = {condition["type"]: condition for condition in entry.get("conditions", ())}
        found = [(kind, conditions.get(kind, {})) for kind in ("Accepted", "ResolvedRefs")]
        if any(condition.get("observedGeneration", 0) < generation for _, condition in found):
            continue
        refused = next(((f"not {kind}", said) for kind, said in found if said.get("status") != "True"), None)
        # A gateway may leave out a rule that it can't do and take the others: nobody would keep the weights.
        partly = conditions.get("PartiallyInvalid", {})
        if partly.get("status") == "True" and partly.get("observedGeneration", 0) >= generation:
            refused = refused or ("PartiallyInvalid", partly)
        if refused is None:
            return None
        refusals.append(refused)
    if refusals:
        what, condition = refusals[0]
        said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
        return f"HTTPRoute {name} is {what}: {said}; see: kubectl describe httproute {name}", False
    if entries:
        problem = f"the gateway has not reconciled the newest HTTPRoute {name} yet"
        return f"{problem}; if it stays so, see whether the controller of Gateway {gateway} runs", True
    problem = f"HTTPRoute {name} has no status of Gateway {gateway} yet"
    return f"{problem}; check that this Gateway exists and that its controller runs", True


def _key(ref: Object, route: Object) -> tuple[object, ...]:
    """What a parentRef means, with the defaults of the Gateway API."""
    return (
        ref.get("group", "gateway.networking.k8s.io"),
        ref.get("kind", "Gateway"),
        ref.get("namespace") or route["metadata"].get("namespace"),
        ref.get("name"),
        ref.get("sectionName") or None,
        ref.get("port"),
    )


def _age(policy: Object, route: Object | None) -> tuple[str, str, str]:
    """By which the Gateway API decides: the older route, then the one that is first in the alphabet."""
    metadata = policy["metadata"]
    return (route or policy)["metadata"]["creationTimestamp"], metadata["namespace"], metadata["name"]
