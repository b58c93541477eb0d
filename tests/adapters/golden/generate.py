"""Adds to keras2.json what Keras 2 makes of the model that save.ts has saved: predictions, and some steps of training.

    pip install tf_keras==2.21.0 tensorflow==2.21.0
    python tests/adapters/golden/generate.py

The topology is TensorFlow.js's own, as its converter hands it to Keras; Keras 3 does not read it.
"""

import json
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf
import tf_keras as keras

PATH = pathlib.Path(__file__).parent / "keras2.json"


def array(given):
    return np.array(given["values"], np.float32).reshape(given["shape"])


def weights_of(model, golden):
    """The weights of the file by the model's own names of them: TensorFlow.js's order differs where models are nested."""
    flat, named, at = np.array(golden["weights"], np.float32), {}, 0
    for spec in golden["weightSpecs"]:
        size = int(np.prod(spec["shape"]))
        named[spec["name"]] = flat[at : at + size].reshape(spec["shape"])
        at += size
    assert at == len(flat)
    return [named[weight.name.split(":")[0]] for weight in model.weights]


def main():
    golden = json.loads(PATH.read_text())
    model = keras.models.model_from_json(json.dumps(golden["modelTopology"]))
    model.set_weights(weights_of(model, golden))
    x, y = array(golden["x"]), array(golden["y"])
    predictions = model.predict(x, verbose=0)
    model.compile(optimizer=keras.optimizers.SGD(golden["rate"]), loss="mean_squared_error")
    losses = []
    for _ in range(2):
        for part_x, part_y in zip(np.split(x, golden["batches"]), np.split(y, golden["batches"])):
            losses.append(float(model.train_on_batch(part_x, part_y)))
    golden["keras"] = {
        "version": keras.__version__,
        "tensorflow": tf.__version__,
        "predictions": predictions.ravel().tolist(),
        "losses": losses,
        "names": [weight.name.split(":")[0] for weight in model.weights],
        "weights": [weight.numpy().ravel().tolist() for weight in model.weights],
        "trained": model.predict(x, verbose=0).ravel().tolist(),
    }
    PATH.write_text(json.dumps(golden) + "\n")


main()
