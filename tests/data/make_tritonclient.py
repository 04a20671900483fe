"""What tritonclient sends, as bytes: tests/data/tritonclient/.

    pip install "tritonclient[grpc]==2.73.0"     (in a virtual environment; Python 3.11)
    python make_tritonclient.py
"""

import pathlib

import numpy as np
import tritonclient.grpc as client
from tritonclient.grpc._utils import _get_inference_request

FOLDER = pathlib.Path(__file__).resolve().parent / "tritonclient"


def texts(values):
    tensor = client.InferInput("text", [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=object))
    return tensor


def write(name, **request):
    defaults = {"request_id": "", "model_version": "", "outputs": None, "sequence_id": 0, "sequence_start": False,
                "sequence_end": False, "priority": 0, "timeout": None, "parameters": None}
    message = _get_inference_request(**{**defaults, **request})
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))


write("plain", model_name="toys", inputs=[texts(["lamp", "süße Äpfel"])], request_id="r1")
write("chosen", model_name="toys", inputs=[texts(["lamp", "chair", "table"])], model_version="2",
      outputs=[client.InferRequestedOutput("price"), client.InferRequestedOutput("version")],
      parameters={"coverage": 0.5, "estimator": "quantile:0.9"}, timeout=5_000_000, priority=3)
