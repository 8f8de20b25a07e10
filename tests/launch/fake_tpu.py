"""A local server of the Cloud TPU API, built on the client's own message types.

A queued resource moves one state with each look at it; `script` says through which states, one
list per creation. Errors can be injected per method.
"""

from concurrent import futures

import grpc
from google.cloud import tpu_v2
from google.cloud.tpu_v2.services.tpu.transports import TpuGrpcTransport
from google.longrunning import operations_pb2

State = tpu_v2.QueuedResourceState.State


class FakeTpu:
    def __init__(self) -> None:
        self.resources = {}  # name -> (message, states still to come)
        self.nodes = {}
        self.created = []  # requests, as they came
        self.script = []  # one list of states per creation
        self.errors = {}  # method -> status codes for its next calls
        self.deleting = {}  # name -> looks until it is gone
        self.slow_deletion = 3
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([self._handlers()])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def client(self):
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        return tpu_v2.TpuClient(transport=TpuGrpcTransport(channel=channel))

    def _handlers(self):
        requests = {
            "CreateQueuedResource": tpu_v2.CreateQueuedResourceRequest,
            "GetQueuedResource": tpu_v2.GetQueuedResourceRequest,
            "DeleteQueuedResource": tpu_v2.DeleteQueuedResourceRequest,
            "ListQueuedResources": tpu_v2.ListQueuedResourcesRequest,
            "ListNodes": tpu_v2.ListNodesRequest,
            "ListAcceleratorTypes": tpu_v2.ListAcceleratorTypesRequest,
        }
        methods = {}
        for name, request in requests.items():
            methods[name] = grpc.unary_unary_rpc_method_handler(
                self._guarded(name),
                request_deserializer=request.deserialize,
                response_serializer=self._serialize,
            )
        return grpc.method_handlers_generic_handler("google.cloud.tpu.v2.Tpu", methods)

    @staticmethod
    def _serialize(message):
        if isinstance(message, operations_pb2.Operation):
            return message.SerializeToString()
        return type(message).serialize(message)

    def _guarded(self, name):
        def call(request, context):
            planned = self.errors.get(name)
            if planned:
                context.abort(planned.pop(0), "injected")
            return getattr(self, name)(request, context)

        return call

    def CreateQueuedResource(self, request, context):
        name = f"{request.parent}/queuedResources/{request.queued_resource_id}"
        if name in self.resources:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "name is taken")
        self.created.append(request)
        made = tpu_v2.QueuedResource(request.queued_resource, name=name)
        states = list(self.script.pop(0)) if self.script else [State.ACTIVE]
        made.state = tpu_v2.QueuedResourceState(state=State.CREATING)
        self.resources[name] = (made, states)
        return operations_pb2.Operation(name="operations/create", done=False)

    def GetQueuedResource(self, request, context):
        self._advance(request.name)
        if request.name not in self.resources:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such queued resource")
        return self.resources[request.name][0]

    def _advance(self, name):
        if name in self.deleting:
            self.deleting[name] -= 1
            if self.deleting[name] <= 0:
                del self.deleting[name]
                self.resources.pop(name)
                self._drop_nodes(name)
            return
        if name in self.resources and self.resources[name][1]:
            made, states = self.resources[name]
            state = states.pop(0)
            made.state = tpu_v2.QueuedResourceState(state=state)
            if state == State.FAILED:
                made.state.failed_data.error.message = "no capacity in the zone"
            if state == State.ACTIVE:
                for spec in made.tpu.node_spec:
                    node = tpu_v2.Node(spec.node, queued_resource=name, state="READY")
                    ids = [spec.node_id]
                    if spec.multislice_params.node_count:
                        count, prefix = (
                            spec.multislice_params.node_count,
                            spec.multislice_params.node_id_prefix,
                        )
                        ids = [f"{prefix}-{i}" for i in range(count)]
                    for node_id in ids:
                        node.name = f"{spec.parent}/nodes/{node_id}"
                        self.nodes[node.name] = tpu_v2.Node(node)
            if state == State.SUSPENDED:
                self._drop_nodes(name)

    def _drop_nodes(self, name):
        for node in [n for n, node in self.nodes.items() if node.queued_resource == name]:
            del self.nodes[node]

    def DeleteQueuedResource(self, request, context):
        if request.name not in self.resources:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such queued resource")
        used = any(n.queued_resource == request.name for n in self.nodes.values())
        if used and not request.force:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it has nodes: use force")
        self.deleting.setdefault(request.name, self.slow_deletion)
        self.resources[request.name][0].state = tpu_v2.QueuedResourceState(state=State.DELETING)
        return operations_pb2.Operation(name="operations/delete", done=False)

    def ListQueuedResources(self, request, context):
        found = [made for made, _ in self.resources.values()]
        return tpu_v2.ListQueuedResourcesResponse(queued_resources=found)

    def ListNodes(self, request, context):
        return tpu_v2.ListNodesResponse(nodes=list(self.nodes.values()))

    def ListAcceleratorTypes(self, request, context):
        types = [tpu_v2.AcceleratorType(type_=t) for t in ("v5p-8", "v5p-128", "v6e-16")]
        return tpu_v2.ListAcceleratorTypesResponse(accelerator_types=types)
