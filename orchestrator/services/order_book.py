"""Every order that there is. Each noun has a file of its own; this one puts them together."""

from typing import Final

from orchestrator.services.audit_orders import AUDIT_ORDERS
from orchestrator.services.capsule_orders import CAPSULE_ORDERS
from orchestrator.services.container_orders import CONTAINER_ORDERS
from orchestrator.services.installation_orders import INSTALLATION_ORDERS
from orchestrator.services.orders import Order
from orchestrator.services.run_orders import RUN_ORDERS
from orchestrator.services.session_orders import SESSION_ORDERS
from orchestrator.services.store_orders import STORE_ORDERS
from orchestrator.services.tenant_orders import TENANT_ORDERS

ORDERS: Final[tuple[Order, ...]] = (
    *TENANT_ORDERS,
    *AUDIT_ORDERS,
    *SESSION_ORDERS,
    *RUN_ORDERS,
    *CAPSULE_ORDERS,
    *CONTAINER_ORDERS,
    *INSTALLATION_ORDERS,
    *STORE_ORDERS,
)
