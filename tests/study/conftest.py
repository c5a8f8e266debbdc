"""Studies on fake hosts: what a study does with replications and cells does not depend on pages."""

import pytest

from podcluster.host import kernel, model
from tests.cluster.fake import fake_model


@pytest.fixture
def fake_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put fake hosts where the real ones would be built, and compile nothing."""
    monkeypatch.setattr(model, "HostModel", fake_model)
    monkeypatch.setattr(kernel, "is_compiled", lambda: True)
