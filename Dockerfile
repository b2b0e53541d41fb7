# One image for every service: the daemon, and what prepares, watches and reports a run.
FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_PYTHON=/opt/gradvine/bin/python
WORKDIR /src
RUN python -m venv --without-pip /opt/gradvine

# The dearest layer first, and torch by its pinned version, without GPU libraries, which are ten times as large. With them,
# from PyPI: docker build --build-arg TORCH_INDEX= .
# Headers and tests are for those who compile, which nobody does here.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)" \
 && cd /opt/gradvine/lib/python3.11/site-packages/torch && rm -rf include test bin/*[Tt]est* bin/protoc*

# Requirements change less often than the source, so they are a layer of their own. Left out is cvxpy, which only a
# reference solver of plans needs.
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; wanted = project['dependencies'] + extras['plan'] + extras['data']; \
print(*(r for r in wanted if not r.startswith('cvxpy')), 'setuptools', sep='\n')" > requirements.txt \
 && pip install --constraint constraints.txt --requirement requirements.txt

COPY . ./
RUN pip install --no-deps --no-build-isolation .


FROM python:3.11-slim
COPY --from=build /opt/gradvine /opt/gradvine
ENV PATH=/opt/gradvine/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
RUN mkdir /peer && chown 10001:10001 /peer
USER 10001:10001
WORKDIR /peer
ENTRYPOINT ["gradvine"]
CMD ["--help"]
