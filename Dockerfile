# docker build --tag harness .                                  for CPUs
# docker build --build-arg TORCH_BACKEND=cuda --tag harness .   for NVIDIA GPUs
#
# docker run harness                                            the demo, from training to its board
# docker run --gpus all --shm-size 8g --volume "$PWD/results:/results" --volume "$PWD/data:/data" \
#     harness python run.py fold --data /data
FROM python:3.12-slim
ARG TORCH_BACKEND=cpu
RUN python -m pip install --no-cache-dir uv==0.13.9
WORKDIR /project
COPY requirements.txt .
# for cuda the standard build, which brings its own CUDA libraries
RUN uv pip install --system --no-cache $(test "$TORCH_BACKEND" = cuda || echo --torch-backend "$TORCH_BACKEND") \
    -r requirements.txt
COPY . .
# what lasts: folds, predictions, weights, submissions, and the encoders that were downloaded
ENV COMPETITION_HOME=/results HF_HOME=/results/huggingface
CMD python run.py fold --competition demo \
    && python run.py blend --competition demo --name demo \
    && python run.py check /results/submissions/demo/demo.csv --competition demo \
    && python run.py submit /results/submissions/demo/demo.csv --to local --competition demo \
    && python run.py board --competition demo
