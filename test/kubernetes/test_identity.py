"""Who gets into a cluster on Kubernetes: pods that can show a ServiceAccount token of its namespace, and nobody else."""

import os

import kube
import pytest
import tokens
from kube import Failed, until

STATUS = "ray status --address $RAY_HEAD_SERVICE_HOST:6379"
TOKEN = "/var/run/secrets/ray/token"


@pytest.fixture(scope="module")
def cluster(space):
    space("apply", "-f", kube.CLUSTER)
    space.ready(4)
    space.visitor()
    space.name = space.json("get", "pod", "visitor")["metadata"]["namespace"]
    return space


@pytest.fixture
def shown(cluster):
    """Shows a token to the head from a pod, by a command that needs to be let in."""

    def show(token, pod="visitor", command=STATUS):
        cluster.run(pod, "bash", "-c", "cat > " + TOKEN, stdin=token)
        try:
            return cluster.run(pod, "bash", "-c", command)
        finally:
            cluster.run(pod, "rm", "-f", TOKEN)

    return show


@pytest.fixture
def signing_key(admin):
    return os.path.join(admin.env["K8S_STATE"], "pki", "sa.key")


@pytest.fixture
def kid(cluster):
    return tokens.key_id(cluster.run("visitor", "cat", "/projected/token"))


def refused(show, token, *parts):
    with pytest.raises(Failed) as e:
        show(token)
    for part in parts:
        assert part in str(e.value), e.value
    assert token.split(".")[-1] not in str(e.value)


def test_a_pod_shows_its_token_for_ray(cluster, shown):
    assert "Resources" in shown(cluster.run("visitor", "cat", "/projected/token"))


def test_a_pod_with_its_default_token_only(cluster):
    assert "Resources" in cluster.run("visitor", "bash", "-c", STATUS)


def test_a_token_of_the_test_s_making_is_as_good(cluster, shown, signing_key, kid):
    # What follows is refused for what it says, not because the test makes tokens badly.
    assert "Resources" in shown(tokens.sign(signing_key, kid, cluster.name))


def test_an_expired_token(cluster, shown, signing_key, kid):
    refused(shown, tokens.sign(signing_key, kid, cluster.name, lifetime=-60), "it expired at")


def test_a_token_for_somebody_else(cluster, shown, signing_key, kid):
    refused(shown, tokens.sign(signing_key, kid, cluster.name, audience="vault"), "made out to vault")


def test_a_token_of_another_namespace(cluster, shown, signing_key, kid):
    refused(shown, tokens.sign(signing_key, kid, "kube-system"), 'namespace "kube-system"', cluster.name)


def test_a_token_of_another_issuer(cluster, shown, signing_key, kid):
    refused(shown, tokens.sign(signing_key, kid, cluster.name, issuer="https://elsewhere"), "issuer")


def test_a_token_signed_by_a_stranger(cluster, shown, kid, tmp_path):
    key = tokens.new_key(str(tmp_path))
    refused(shown, tokens.sign(key, kid, cluster.name), "signature is wrong")
    refused(shown, tokens.sign(key, "unknown", cluster.name), "not one of this cluster")


def test_no_token_at_all(cluster):
    cluster.visitor("nobody", automount=False)
    with pytest.raises(Failed, match="no ServiceAccount token is mounted in this pod, and RAY_AUTH_TOKEN is not set"):
        cluster.run("nobody", "bash", "-c", STATUS)
    with pytest.raises(Failed, match="RAY_AUTH_TOKEN from a Secret"):
        cluster.run("nobody", "bash", "-c", "ray start --address=$RAY_HEAD_SERVICE_HOST:6379 --num-cpus=0")


def test_a_pod_of_another_namespace(cluster, own_space):
    own_space.visitor()
    address = cluster.json("get", "service", "ray-head")["spec"]["clusterIP"] + ":6379"
    show = "cp /projected/token %s; ray %%s --address=%s" % (TOKEN, address)
    with pytest.raises(
        Failed, match='it is of namespace "own-[^"]*", and this cluster is open to namespace "%s" only' % cluster.name
    ):
        own_space.run("visitor", "bash", "-c", show % "status")
    with pytest.raises(Failed, match="this cluster is open to namespace"):
        own_space.run("visitor", "bash", "-c", show % "start --num-cpus=0")
    # Its default token, which opens the API server, does not even leave the pod.
    with pytest.raises(Failed, match="sent only to a Service of this namespace"):
        own_space.run("visitor", "bash", "-c", "rm %s; ray status --address=%s" % (TOKEN, address))
    assert cluster.alive() == 4


def test_without_a_credential_nothing_but_health_answers(cluster):
    ask = "wget -q --tries 1 -T 5 -O- http://$RAY_HEAD_SERVICE_HOST:8265%s"
    assert "success" in cluster.run("visitor", "bash", "-c", ask % "/api/gcs_healthz")
    with pytest.raises(Failed, match="exit code 6"):  # wget's for authentication
        cluster.run("visitor", "bash", "-c", ask % "/api/v0/actors")
    with pytest.raises(Failed):
        cluster.run(
            "visitor", "bash", "-c", "wget -q --tries 1 -T 5 -O- http://$RAY_HEAD_SERVICE_HOST:6379/api/version"
        )


def test_only_serviceaccounts_that_the_head_allows(own_space):
    with open(kube.CLUSTER, encoding="utf-8") as f:
        text = f.read()
    own_space("create", "serviceaccount", "trainer")
    text = text.replace("--head ", "--head --allow-service-account=trainer ").replace("replicas: 3", "replicas: 1")
    workers = (
        text.index("name: ray-worker\nspec")
        if "name: ray-worker\nspec" in text
        else text.rindex("terminationGracePeriodSeconds")
    )
    own_space.apply(
        text[:workers]
        + text[workers:].replace(
            "terminationGracePeriodSeconds", "serviceAccountName: trainer\n      terminationGracePeriodSeconds", 1
        )
    )
    own_space.ready(2)
    own_space.visitor()
    with pytest.raises(
        Failed, match='ServiceAccount "default" may not join; --allow-service-account of the head allows trainer'
    ):
        own_space.run("visitor", "bash", "-c", STATUS)
    assert own_space.alive() == 2


def test_a_token_from_a_secret_where_no_serviceaccount_token_is(own_space):
    with open(kube.CLUSTER, encoding="utf-8") as f:
        text = f.read()
    own_space("create", "secret", "generic", "ray-token", "--from-literal=token=a-token-of-the-user-s-own-choice")
    secret = "- name: RAY_AUTH_TOKEN\n              valueFrom: {secretKeyRef: {name: ray-token, key: token}}\n            - name: MY_POD_IP"
    text = text.replace("- name: MY_POD_IP", secret).replace(
        "terminationGracePeriodSeconds", "automountServiceAccountToken: false\n      terminationGracePeriodSeconds"
    )
    text = text.replace("            - {name: token, mountPath: /var/run/secrets/ray, readOnly: true}\n", "").replace(
        "replicas: 3", "replicas: 1"
    )
    own_space.apply(text)
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
    # Who has chosen a token does not go by ServiceAccounts any more.
    own_space.visitor()
    with pytest.raises(Failed, match="takes its token only"):
        own_space.run("visitor", "bash", "-c", STATUS)
