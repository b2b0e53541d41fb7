# One image for every service: the daemon, and what prepares and reports a run.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
WORKDIR /opt/gradvine

# The dearest layer first, and torch by its pinned version. The build without GPU libraries, a tenth of the size:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
ARG TORCH_INDEX=
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

# Requirements change less often than the source, so they are a layer of their own.
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['plan'], *extras['data'], 'setuptools', sep='\n')" > requirements.txt \
 && pip install --constraint constraints.txt --requirement requirements.txt

COPY . ./
RUN pip install --no-deps --no-build-isolation . \
 && mkdir /peer && chown 10001:10001 /peer

USER 10001:10001
WORKDIR /peer
ENTRYPOINT ["gradvine"]
CMD ["--help"]
