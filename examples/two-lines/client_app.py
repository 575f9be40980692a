"""What a node does: train, evaluate."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from model import Net, load_data
from torch.nn.functional import cross_entropy

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One pass over the node's images."""
    config, partition = message.content["config"], context.node_config["partition-id"]
    torch.manual_seed(1000 * config["server-round"] + partition)
    images, labels, _, _ = load_data(partition, context.node_config["num-partitions"])
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=0.9)
    for batch in torch.randperm(len(labels)).split(16):
        optimizer.zero_grad()
        loss = cross_entropy(net(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"loss": loss.item(), "num-examples": len(labels)})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the model on the node's test images."""
    _, _, images, labels = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with torch.no_grad():
        scores = net(images)
    loss, acc = cross_entropy(scores, labels).item(), (scores.argmax(1) == labels).float().mean().item()
    metrics = MetricRecord({"loss": loss, "acc": acc, "num-examples": len(labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
