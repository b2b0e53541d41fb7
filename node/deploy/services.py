"""The texts that a compose file is put together from; see ``compose.py``. ``%{...}`` is filled in."""

from __future__ import annotations

HEAD = """\
# %{peers} peers in containers, joined as %{family}. Made by: %{command}
#
%{usage}#
# docker-compose from 1.29 on will do, too. If not all comes up, docker compose logs data says why.
# Settings of the run are read from the environment, or from lines in a file .env beside this one:
#
#   GRADVINE_DURATION=5m GRADVINE_LR=0.05 docker compose up
#
# A service's name is its peer's name, its host name and the name in its certificate. The image is built from gradvine's
# source: by itself where this file is there, else by docker build -t %{image} there.
#
# Who has started Prometheus as well (see its service) ends all with: docker compose --profile observe down --volumes
"""

USAGE = (
    ("docker compose up", "until all have learnt, and merged their models"),
    ("http://localhost:9600", "the run, live"),
    ("docker compose exec %{last} gradvine status 127.0.0.1:%{http_port}", "how one peer is doing"),
    ("docker compose exec %{last} sh -c 'kill -9 -1'", "it crashes, is started again, and goes on"),
    ("docker compose exec links gradvine link %{first} %{second} --cut", "cuts a link; --heal, --delay 50ms"),
    ("docker compose run --rm finish", "ends the run now, with the merge"),
    ("docker compose down --volumes", "leaves nothing but the reports in ./runs"),
)

ANCHORS = """
x-settings: &settings  # passed on where they are set; they win over the settings in the service data
%{settings}
x-peer: &peer
  image: %{image}
  init: true
  depends_on:
    data: { condition: service_completed_successfully }
%{after}  environment: *settings
  entrypoint:
    - gradvine
    - run
    - --plan=plan.json
    - --config=config.toml
    - --data=data
    - --certs=.
    - --state=state
    - --resume
    - --out=/record
    - --bind=0.0.0.0:%{port}
    - --http=0.0.0.0:%{http_port}
    - --wait-for-neighbours=%{wait}s
  restart: on-failure:20
  stop_grace_period: 10s  # a peer drains in less than 8
  healthcheck:
    test: ["CMD", "python", "-c", "%{healthy}"]
    interval: %{look_every}s
    timeout: 10s
    start_period: 60s
  read_only: true
  tmpfs: ["/tmp"]
  cap_drop: ["ALL"]
  security_opt: ["no-new-privileges:true"]

x-watching: &watching
  image: %{image}
  init: true
  depends_on:
    data: { condition: service_completed_successfully }
  volumes: ["record:/record:ro"]
  read_only: true
  tmpfs: ["/tmp"]
  cap_drop: ["ALL"]
  security_opt: ["no-new-privileges:true"]

x-once: &once  # as root, since new volumes belong to root; with as little more as that takes
  image: %{image}
  init: true
  user: "0:0"
  network_mode: none
  cap_drop: ["ALL"]
  cap_add: ["CHOWN", "DAC_OVERRIDE"]
  security_opt: ["no-new-privileges:true"]
"""

CERTS = """
services:
  # An authority, and a certificate for each peer and the operator, each in a volume of its own: once.
  # Anew, when they are about to expire: docker compose run --rm certs --renew
  certs:
    <<: *once
    build:
      context: .
      args:
        TORCH_INDEX: ${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
    entrypoint:
      - sh
      - -euc
      - |
        if [ $$# = 0 ]; then
          if [ -e /certs/authority/key.pem ]; then exit 0; fi
          set -- --names=%{names}
        fi
        gradvine certs --output=/certs "$$@"
        cd /certs
        for who in *; do
          if [ $$who != authority ]; then chown -h %{user}:%{user} $$who $$who/*.pem; fi
        done
      - certs
    volumes:
      - authority:/certs/authority
      - operator:/certs/operator
%{volumes}"""

DATA = """
  # Settings, plan and data: each peer's shard goes into that peer's volume only.
  data:
    <<: *once
    depends_on:
      certs: { condition: service_completed_successfully }
    environment: *settings
    entrypoint: ["python", "-m", "node.deploy.volumes"]
    command:
%{arguments}    volumes:
      - record:/record
      - prometheus:/prometheus
%{volumes}"""

LINKS = """
  # Carries all that peers say to each other, so that a link can be delayed, limited and cut. Ends with the report.
  links:
    <<: *watching
    restart: on-failure
    entrypoint:
      - sh
      - -euc
      - |
        gradvine links --plan=/record/plan.json &
        while [ -e /record/running ] && kill -0 $$!; do sleep 1; done
        kill $$!
"""

WATCH = """
  # The run, live, on http://localhost:9600
  watch:
    <<: *watching
    entrypoint: ["gradvine", "watch", "/record/plan.json", "--http=0.0.0.0:9600", "--until-end"]
    ports: ["127.0.0.1:${WATCH_PORT:-9600}:9600"]
"""

PROMETHEUS = """
  # Figures and alerts of weeks, on http://localhost:9090: docker compose --profile observe up
  prometheus:
    image: prom/prometheus:v3.5.0
    profiles: ["observe"]
    depends_on:
      data: { condition: service_completed_successfully }
    command:
      - --config.file=/etc/prometheus/prometheus.yml
      - --storage.tsdb.path=/prometheus
      - --storage.tsdb.retention.time=60d
    ports: ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]
    volumes: ["prometheus:/etc/prometheus:ro", "figures:/prometheus"]
    read_only: true
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
"""

PEER = """
  %{key}:
    <<: *peer
    command: ["--name=%{name}"]
    volumes: ["%{name}:/peer", "record:/record"]
"""

REPORT = """
  # When all have ended: the record, the merged model and the report go to the host, and belong to whom ./runs does.
  report:
    <<: *once
    depends_on:
      data: { condition: service_completed_successfully }
    cap_add: ["CHOWN", "DAC_OVERRIDE", "SETUID", "SETGID"]  # copies as root, then becomes the owner of ./runs
    environment: ["MPLCONFIGDIR=/tmp"]
    entrypoint: ["python", "-m", "node.deploy.reporting"]
    volumes: ["record:/record", "./runs:/runs"]

  # Ends the run now; by any peer, such as: docker compose run --rm finish %{last}:%{port}
  finish:
    image: %{image}
    profiles: ["tools"]
    entrypoint: ["gradvine", "finish", "--certs=/operator"]
    command: ["%{first}:%{port}"]
    volumes: ["operator:/operator:ro"]
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
"""

VOLUMES = """
volumes:
  authority:
  operator:
  record:
  prometheus:
  figures:
"""
