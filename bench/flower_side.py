"""Flower's part of the comparison: the functions of the SecAgg+ that it ships, called as its mod and workflow do."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_separate
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from our_side import CLIPPING, EXAMPLES, MAX_WEIGHT, Mean, check_mean, site_vector
from timing import Stopwatch, Task

TARGET, MODULUS = 1 << 22, 1 << 32


def flower_masks(vector: NDArray[Any], own: bytes, pairs: list[bytes], added: int) -> NDArray[Any]:
    """The lines of _collect_masked_vectors that mask: the own mask, then the pairs', the first ``added`` with plus."""
    vectors, shapes = [vector], [vector.shape]
    vectors = parameters_addition(vectors, pseudo_rand_gen(own, MODULUS, shapes))
    for i, shared_key in enumerate(pairs):
        mask = pseudo_rand_gen(shared_key, MODULUS, shapes)
        vectors = parameters_addition(vectors, mask) if i < added else parameters_subtraction(vectors, mask)
    return parameters_mod(vectors, MODULUS)[0]


@dataclass
class FlowerCohort:
    """Clients that have exchanged keys and shares with each other."""

    n: int
    threshold: int

    def __post_init__(self) -> None:
        n = self.n
        self.setup = ConfigRecord(
            {
                Key.SAMPLE_NUMBER: n,
                Key.SHARE_NUMBER: n,
                Key.THRESHOLD: self.threshold,
                Key.CLIPPING_RANGE: CLIPPING,
                Key.TARGET_RANGE: TARGET,
                Key.MOD_RANGE: MODULUS,
                Key.MAX_WEIGHT: float(MAX_WEIGHT),
            }
        )
        self.states = {i: SecAggPlusState(nid=i) for i in range(1, n + 1)}
        self.keys: dict[str, Any] = {str(i): _keys(_setup(state, self.setup)) for i, state in self.states.items()}
        self.sealed: dict[int, dict[int, bytes]] = {}
        for i, state in self.states.items():
            shared: Any = _share_keys(state, ConfigRecord(self.keys))
            self.sealed[i] = dict(zip(shared[Key.DESTINATION_LIST], shared[Key.CIPHERTEXT_LIST], strict=True))
        for i, state in self.states.items():
            for j, key in state.ss2_dict.items():
                # What _collect_masked_vectors does first.
                _, _, seed, private = share_keys_plaintext_separate(decrypt(key, self.sealed[j][i]))
                state.rd_seed_share_dict[j], state.sk1_share_dict[j] = seed, private

    def _masked(self, number: int, length: int, dead: set[int]) -> list[NDArray[Any]]:
        """A client's vector without the masks that cancel in the sum over those who are not dead."""
        state = copy.copy(self.states[number])
        state.threshold = 0
        sealed = {i: self.sealed[i][number] for i in dead}
        parameters = ndarrays_to_parameters([site_vector(number, length)])
        reply: Any = _collect_masked_vectors(state, _delivery(sealed), EXAMPLES, parameters)
        return [bytes_to_ndarray(raw) for raw in reply[Key.MASKED_PARAMETERS]]

    def client(self, number: int, length: int, watch: Stopwatch) -> list[RecordDict]:
        """One client's whole round with fresh keys; returns its four replies.

        The others seal what they dealt it for its new key while the watch stands.
        """
        state, before = SecAggPlusState(nid=number), self.states[number]
        parameters = ndarrays_to_parameters([site_vector(number, length)])
        with watch.running():
            advertised = _setup(state, self.setup)
        keys = ConfigRecord({**self.keys, str(number): _keys(advertised)})
        with watch.running():
            shared = _share_keys(state, keys)
        delivery = _delivery(
            {i: encrypt(new, decrypt(before.ss2_dict[i], self.sealed[i][number])) for i, new in state.ss2_dict.items()}
        )
        with watch.running():
            masked = _collect_masked_vectors(state, delivery, EXAMPLES, parameters)
        with watch.running():
            opened = _unmask(state, _partition(set(self.states), set()))
        return [_record(reply) for reply in (advertised, shared, masked, opened)]

    def unmasking(self, expected: Mean, dead: set[int], *, checked: bool = True) -> Task:
        """SecAggPlusWorkflow.unmask_stage, on a grid that has every answer already.

        Without ``checked`` the masked sum is zeros and nobody looks at what comes out: making a true one takes as
        long as unmasking it.
        """
        active = set(self.states) - dead
        replies = [_message(i, _unmask(self.states[i], _partition(active, dead))) for i in active]
        total: list[NDArray[Any]] = [np.zeros(1, np.int64), np.zeros(len(expected), np.int64)]
        for i in active if checked else ():
            total = parameters_addition(total, self._masked(i, len(expected), dead))
        grid: Any = SimpleNamespace(send_and_receive=lambda messages, timeout: replies)
        workflow = SecAggPlusWorkflow(1.0, self.threshold)
        # The workflow makes its requests, and Flower's messages need a task to belong to.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

        def task(watch: Stopwatch) -> None:
            # unmask_stage uses its state up, and leaves the mean in the results that it hands to the strategy.
            result: Any = SimpleNamespace()
            state = self._workflow_state(active, parameters_mod(total, MODULUS), result)
            with watch.running():
                workflow.unmask_stage(grid, _context(), state)
            if checked:
                check_mean(parameters_to_ndarrays(result.parameters)[0], expected)

        return task

    def _workflow_state(self, active: set[int], total: list[NDArray[Any]], result: Any) -> WorkflowState:
        everybody: Any = set(self.states)
        return WorkflowState(
            sampled_node_ids=everybody,
            active_node_ids=set(active),
            num_shares=len(everybody),
            threshold=self.threshold,
            clipping_range=CLIPPING,
            quantization_range=TARGET,
            mod_range=MODULUS,
            max_weight=float(MAX_WEIGHT),
            nid_to_neighbours={i: set(everybody) for i in everybody},
            nid_to_publickeys={i: self.keys[str(i)] for i in everybody},
            aggregate_ndarrays=total,
            legacy_results=[(None, result)],  # type: ignore[list-item]
        )


def _keys(advertised: Any) -> list[bytes]:
    return [advertised[Key.PUBLIC_KEY_1], advertised[Key.PUBLIC_KEY_2]]


def _delivery(sealed: dict[int, bytes]) -> ConfigRecord:
    return ConfigRecord({Key.CIPHERTEXT_LIST: list(sealed.values()), Key.SOURCE_LIST: list(sealed)})


def _partition(active: set[int], dead: set[int]) -> ConfigRecord:
    return ConfigRecord({Key.ACTIVE_NODE_ID_LIST: sorted(active), Key.DEAD_NODE_ID_LIST: sorted(dead)})


def _record(reply: Any) -> RecordDict:
    return RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(reply, False)})


def _message(number: int, reply: Any) -> Any:
    """A client's answer, with as much of a message as the workflow reads."""
    source = SimpleNamespace(src_node_id=number)
    return SimpleNamespace(has_error=lambda: False, metadata=source, content=_record(reply))


def _context() -> Any:
    """What unmask_stage takes from its context: the round's number, and a strategy, which here does nothing."""
    records = {MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})}
    strategy = SimpleNamespace(aggregate_fit=lambda *_: (None, {}))
    return SimpleNamespace(state=SimpleNamespace(config_records=records), strategy=strategy)
